"""One reader for each dataset's own layout; `registry` lists them."""
