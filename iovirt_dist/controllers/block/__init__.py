"""The block controller: extents of one raw image, served with a promise about what survives a power cut."""
