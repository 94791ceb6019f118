"""Ray: the service's own head, the connection to it, and Ray Train. Nothing else imports `ray`.

`head` and `environment` belong to the control side and do not import it either.
"""
