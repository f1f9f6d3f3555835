"""People as cameras see them: heads that differ, skin that beats, motion, light, cameras and codecs."""
