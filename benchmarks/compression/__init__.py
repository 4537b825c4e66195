"""Compression that trains: what each technique costs in accuracy and brings in size, over seeds; and beside tfmot.

``python -m benchmarks.compression`` measures what is not measured yet, a row and a seed at a time, the first seed of all
rows first, and goes on where it stopped, within a training too; ``--report`` prints the tables alone.

Accuracy is that on test samples of which none is trained on, chosen by, or stopped by: strop is given training samples
only, and judges by some of them where it wants to judge. ResNet-8 saw 50,000 training images, of which 10,000 are here.
"""
