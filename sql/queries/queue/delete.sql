-- Delete a queue that is empty; see howdah.delete_queue.
-- params: tenant: its owner's name; name.
-- locks: the queue's row.
SELECT howdah.delete_queue(%(name)b::text, %(tenant)b::text)
