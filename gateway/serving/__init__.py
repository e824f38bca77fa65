"""Between server and page: the ASGI handler, a worker's life, its fleet, and each request's visit."""
