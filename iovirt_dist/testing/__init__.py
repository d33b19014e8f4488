"""What tests of this project, and of devices built on it, use: doubles, the rig and the pytest plugin."""
