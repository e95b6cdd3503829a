"""Mamba segmentation networks for medical images, runnable wherever torch runs.

Importing the package is free of side effects and of torch: Slicer's process imports its torch-free modules.
"""

__version__ = "0.2.0"
