"""The queue, the encoders and the keys: every transaction of the product.

`Store` is the way in; the modules beside it hold one concern each, as functions of a connection.
"""

from jobs.store.facade import Store, open_store
from jobs.store.leases import Lease
from jobs.store.submit import Submission

__all__ = ["Lease", "Store", "Submission", "open_store"]
