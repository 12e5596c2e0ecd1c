"""PostgreSQL: a table a game and platform, and a table for deleted rows."""
