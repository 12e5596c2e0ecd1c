"""PostgreSQL: a table for each game and platform, and a table for deleted rows."""
