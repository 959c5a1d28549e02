"""Types that every context needs: ids, clock, errors, events, paging.

Nothing here names a context's concept, and nothing here does I/O.
"""
