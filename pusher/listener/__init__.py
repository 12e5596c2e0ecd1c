"""The feedback listener: deletes tokens that providers report as dead from the tables of their game."""
