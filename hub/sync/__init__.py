"""Publishing exactly the open subset of a store: decide, plan, and only then send.

Nothing here runs by itself: `planning.plan` looks and builds, `publish.apply` sends.
"""
