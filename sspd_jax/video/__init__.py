"""From a video file to a steady crop of the face on a uniform clock; nothing learned."""
