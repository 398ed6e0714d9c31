"""What commands show: tables, bars, lines, files of pictures."""
