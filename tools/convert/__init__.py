"""What tools/convert_checkpoint.py is made of: readers of foreign files, a writer of ours."""
