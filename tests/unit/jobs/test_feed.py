import asyncio
import threading
import time

import pytest

from jobs import feed as feed_module
from jobs.feed import Feed


def test_a_version_moves_with_its_job_only():
    feed = Feed()
    feed.publish(["a"])
    assert feed.version("a") == 1
    assert feed.version("b") == 0
    feed.publish(["b"], queue=True)
    assert (feed.version("a"), feed.version("b"), feed.queue_version()) == (1, 2, 2)


def test_progress_does_not_wake_who_waits_for_the_queue():
    feed = Feed()
    feed.publish(["a"])
    assert feed.wait_queue(0, timeout_s=0.01) == 0


def test_a_change_before_the_wait_is_not_missed():
    feed = Feed()
    since = feed.version("a")
    feed.publish(["a"], queue=True)
    assert feed.wait_queue(since, timeout_s=60) == 1
    assert asyncio.run(feed.changed("a", since, timeout_s=60)) == 1


def test_a_thread_that_waits_wakes_up():
    feed = Feed()
    threading.Timer(0.02, feed.publish, (["a"],), {"queue": True}).start()
    before = time.monotonic()
    assert feed.wait_queue(0, timeout_s=60) == 1
    assert time.monotonic() - before < 30


def test_many_coroutines_wake_up_and_hold_no_thread():
    feed = Feed()

    async def run():
        before = threading.active_count()
        waits = [asyncio.create_task(feed.changed("a", 0, timeout_s=60)) for _ in range(200)]
        await asyncio.sleep(0)
        assert threading.active_count() == before
        thread = threading.Thread(target=feed.publish, args=(["a"],))
        thread.start()
        thread.join()
        async with asyncio.timeout(10):  # woken, not merely out of time
            return await asyncio.gather(*waits)

    assert asyncio.run(run()) == [1] * 200


def test_a_wait_that_ends_without_news_says_so_and_leaves_nothing():
    feed = Feed()
    assert asyncio.run(feed.changed("a", 0, timeout_s=0.01)) == 0
    assert feed._waiters == {}


def test_a_coroutine_that_is_cancelled_leaves_nothing():
    feed = Feed()

    async def run():
        task = asyncio.create_task(feed.changed("a", 0, timeout_s=60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert feed._waiters == {}


def test_a_forgotten_job_wakes_too_often_and_never_too_seldom(monkeypatch):
    monkeypatch.setattr(feed_module, "_REMEMBERED", 2)
    feed = Feed()
    for name in "abc":
        feed.publish([name])
    assert feed.version("a") == 1  # forgotten: at least what it was
    seen = feed.version("a")
    feed.publish(["a"])
    assert feed.version("a") > seen


def test_a_loop_that_closed_while_it_waited_harms_nobody():
    feed = Feed()
    loop = asyncio.new_event_loop()
    task = loop.create_task(feed.changed("a", 0, timeout_s=60))
    loop.run_until_complete(asyncio.sleep(0))
    (wake,) = feed._waiters["a"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    wake()  # it was taken from the list a moment before
