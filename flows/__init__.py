"""When: one file per procedure of the protocol. Order only; rules live in `study`, touches of the world in `tasks`."""
