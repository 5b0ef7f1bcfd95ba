//! Taskprocessors: named serial queues of tasks, serializers, elastic pools.
