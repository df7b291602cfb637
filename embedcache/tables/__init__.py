"""Files of rows: what they hold, how they are packed, what is wrong with them. ``embedcache.tables.rows`` checks the rows."""
