"""The WSGI application, for servers that speak nothing else: connections are made per request, streams come whole."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
