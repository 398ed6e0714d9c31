"""The VAE stage: latents to pictures."""
