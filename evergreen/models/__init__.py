"""Networks, written with only keras and keras.ops."""
