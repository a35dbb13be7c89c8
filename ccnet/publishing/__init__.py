"""Publishing on the Hugging Face Hub: prepare, check, upload, read back, pin."""
