"""A stand-in for the 3D Slicer application, for tests of the panel: real MRML (slicer-core), Qt through PySide6.

Importing this package does nothing. `slicerhost.application.start()` makes the one application of a process.
"""
