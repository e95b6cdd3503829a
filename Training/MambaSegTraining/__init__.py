"""Training of Mamba segmentation networks; a guest of ``MambaSegLib``, which never imports it."""
