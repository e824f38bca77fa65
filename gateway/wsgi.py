"""The WSGI application, for servers that speak nothing else: connections are made per request, streams come whole."""

from django.core.wsgi import get_wsgi_application

from gateway.serving.lifespan import refuse_faults

application = get_wsgi_application()
refuse_faults()  # there is no lifespan in which a worker could
