"""What works on live Keras models: teaching them, and changing them while they are taught."""
