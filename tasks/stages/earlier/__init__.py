"""What earlier artifacts of the store hold of what is to be made, found by what it is made of: the
bytes of images, and the texts, whatever ids these had. It is copied, so that a later artifact needs
no earlier one; of several that know a number, the first by fingerprint is taken.

Whatever cannot be read is left out, with a warning, and its numbers are made again.
"""
