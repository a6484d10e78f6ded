"""Networks, written with keras and keras.ops alone."""
