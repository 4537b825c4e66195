"""Each engine used by hand: what a good engineer does from that engine's own documentation.

This is what strop is measured against, so nothing of strop makes or runs a model here, and the list does not
follow strop's own changes. The rules it follows:

* the engine's documented way, with the settings its documentation recommends for the situation
  (a CPU, one request at a time, the batch size known), and no tuning beyond that;
* where the documented way fails on a model, the documented way round it, where there is one: a
  fixed batch for recurrent networks in LiteRT, the v1 loader for a TF1-style SavedModel;
* what fails all the same is a result too, with the engine's own words.

`ways.WAYS` is the list. One way on one case, in processes of its own::

    python -m benchmarks.by_hand --case resnet8 --entry openvino_int8 --batch 1 --out result.json
    python -m benchmarks.by_hand --case resnet8 --entry openvino_int8 --batch 1 --serve
"""
