"""The venues: one file each, sans-I/O; ``emulators/`` holds the venues' other side."""
