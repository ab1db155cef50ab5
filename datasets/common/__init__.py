"""Code that the builders of several data sets share."""
