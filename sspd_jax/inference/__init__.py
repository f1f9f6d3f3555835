"""From a video, an array or a camera to heart rates over time, each with its confidence, or to no reading."""
