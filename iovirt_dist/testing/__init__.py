"""What tests of this project, and of devices built on it, use: doubles, the rig and the pytest plugin.

`iovirt_dist.testing.rig.Rig` is the whole ring in one process and in virtual time; the fixtures of
`iovirt_dist.testing.plugin` start a topology of real processes.
"""
