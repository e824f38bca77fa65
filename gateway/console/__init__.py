"""The operators' console: what `manage.py logs` answers, in a browser, and the switches beside it.

Off unless OPS_TOKEN is set. Its requests are kept out of the log; what is done in it is logged.
"""
