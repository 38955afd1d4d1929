"""P-CDVAE: a crystal diffusion variational autoencoder with a phase head."""
