"""One page's calls under way: the fan-out, ordinary code's fan, and the tasks of both."""
