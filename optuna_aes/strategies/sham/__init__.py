"""SHAM: hard auxiliary masks on the columns of one full-width supernet, under a price of memory."""
