"""The one loop that receives, handles and performs; life cycle and telemetry of processes."""
