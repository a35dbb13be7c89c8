"""Jobs of a prediction on files: pictures, how they are found, and the files that they give."""
