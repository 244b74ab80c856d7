"""Runs the application under a server that has no command of its own: ``run.py NAME PORT``."""

import sys


def wsgiref(app, port):
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    class Threaded(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    make_server("127.0.0.1", port, app, Threaded).serve_forever()


def cheroot(app, port):
    from cheroot.wsgi import Server

    Server(("127.0.0.1", port), app, numthreads=4).start()


def pywsgi(app, port):
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", port), app).serve_forever()


def eventlet(app, port):
    import eventlet

    eventlet.wsgi.server(eventlet.listen(("127.0.0.1", port)), app)


def patch(name):
    """What these servers want done before anything else is imported."""
    if name == "pywsgi":
        from gevent import monkey

        monkey.patch_all()
    elif name == "eventlet":
        import eventlet
        import eventlet.wsgi

        eventlet.monkey_patch()


if __name__ == "__main__":
    name, port = sys.argv[1:]
    patch(name)
    from app import app

    globals()[name](app, int(port))
