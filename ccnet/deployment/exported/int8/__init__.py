"""Files in 8-bit integers: calibrated on pictures, quantised."""
