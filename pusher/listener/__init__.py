"""The feedback listener: tokens that providers call dead leave the tables of their game."""
