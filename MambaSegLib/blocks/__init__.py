"""Bricks that two or more networks share; 2-D and 3-D by one argument."""
