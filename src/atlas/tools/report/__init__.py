"""`atlas report`: everything about a run on one offline HTML page."""
