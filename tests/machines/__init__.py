"""What tests of engines start: a tiny machine made of this distribution's packages."""
