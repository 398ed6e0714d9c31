"""Model folders: found, downloaded, listed, looked into."""
