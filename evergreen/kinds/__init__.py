"""What a kind of scenario expects of its items, and how it makes arrays of them, builds, measures and draws."""
