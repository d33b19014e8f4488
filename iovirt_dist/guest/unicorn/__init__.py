"""Guest CPUs on the Unicorn emulator: the engines that implement `iovirt_dist.guest.engine.Engine`."""
