import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;

/**
 * Kafka Streams: a family's two topics merged, hopping windows with grace, final results only.
 *
 * <p>Values are whole hundredths, so that means are exact. A message's timestamp is its event time,
 * which is what Kafka Streams uses by itself.
 */
public final class FleetWindows {
  private static final long SIZE_MS = 30_000;
  private static final long SLIDE_MS = 10_000;
  private static final CountDownLatch FINISHED = new CountDownLatch(1);

  /** One message; fields that it lacks stay null. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  public static final class Reading {
    public Double cpu_pct;
    public Double mem_pct;
    public Double net_in;
    public Double disk_io;
  }

  /** Sum or maximum, and count, of a family's two metrics. */
  private record State(long first, long firstCount, long second, long secondCount) {
    static final State NONE = new State(0, 0, 0, 0);

    State sum(Double one, Double other) {
      return one != null
          ? new State(first + hundredths(one), firstCount + 1, second, secondCount)
          : new State(first, firstCount, second + hundredths(other), secondCount + 1);
    }

    State highest(Double one, Double other) {
      return one != null
          ? new State(Math.max(first, hundredths(one)), firstCount + 1, second, secondCount)
          : new State(first, firstCount, Math.max(second, hundredths(other)), secondCount + 1);
    }
  }

  private static final Serde<State> STATE =
      Serdes.serdeFrom(
          (topic, state) ->
              state == null
                  ? null
                  : ByteBuffer.allocate(32)
                      .putLong(state.first)
                      .putLong(state.firstCount)
                      .putLong(state.second)
                      .putLong(state.secondCount)
                      .array(),
          (topic, bytes) -> {
            if (bytes == null) {
              return null;
            }
            ByteBuffer from = ByteBuffer.wrap(bytes);
            return new State(from.getLong(), from.getLong(), from.getLong(), from.getLong());
          });

  public static void main(String[] args) throws Exception {
    Map<String, String> given = new HashMap<>();
    for (int i = 0; i < args.length; i += 2) {
      given.put(args[i], args[i + 1]);
    }
    String[] topics = given.get("--topics").split(",");
    Path out = Path.of(given.get("--out"));
    long messages = Long.parseLong(given.get("--messages"));
    Duration lateness = Duration.ofMillis(Long.parseLong(given.get("--lateness-ms")));
    TimeWindows windows =
        TimeWindows.ofSizeAndGrace(Duration.ofMillis(SIZE_MS), lateness)
            .advanceBy(Duration.ofMillis(SLIDE_MS));
    boolean isLive = messages == 0;

    StreamsBuilder builder = new StreamsBuilder();
    AtomicLong seen = new AtomicLong();
    try (RowFile cpuMem = new RowFile(out.resolve("cpu_mem.csv"), isLive);
        RowFile netDisk = new RowFile(out.resolve("net_disk.csv"), isLive)) {
      readings(builder, topics[0], topics[1], seen, messages)
          .groupByKey(Grouped.keySerde(Serdes.String()))
          .windowedBy(windows)
          .emitStrategy(EmitStrategy.onWindowClose())
          .aggregate(
              () -> State.NONE,
              (key, reading, state) -> state.sum(reading.cpu_pct, reading.mem_pct),
              Materialized.with(Serdes.String(), STATE))
          .toStream()
          .foreach(
              (window, state) ->
                  cpuMem.write(
                      window,
                      mean(state.first, state.firstCount),
                      mean(state.second, state.secondCount),
                      new long[] {8000, 8900},
                      "Performance spike suspected",
                      "Memory saturation suspected",
                      "Intense resource spike"));
      readings(builder, topics[2], topics[3], seen, messages)
          .groupByKey(Grouped.keySerde(Serdes.String()))
          .windowedBy(windows)
          .emitStrategy(EmitStrategy.onWindowClose())
          .aggregate(
              () -> State.NONE,
              (key, reading, state) -> state.highest(reading.net_in, reading.disk_io),
              Materialized.with(Serdes.String(), STATE))
          .toStream()
          .foreach(
              (window, state) ->
                  netDisk.write(
                      window,
                      state.firstCount == 0 ? -1 : state.first,
                      state.secondCount == 0 ? -1 : state.second,
                      new long[] {610_000, 180_000},
                      "Potential DDoS detection",
                      "Disk thrash warning",
                      "Sustained load alert"));

      KafkaStreams streams = new KafkaStreams(builder.build(), settings(given, out));
      streams.setUncaughtExceptionHandler(
          error -> {
            error.printStackTrace();
            FINISHED.countDown();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler
                .StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
          });
      Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
      streams.start();
      FINISHED.await();
      streams.close();
    }
    say("done");
  }

  private static Properties settings(Map<String, String> given, Path out) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "fleet-" + UUID.randomUUID());
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("--bootstrap"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, out.resolve("state").toString());
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    settings.put("auto.offset.reset", "earliest");
    if (given.get("--store").equals("memory")) {
      settings.put(
          StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG,
          BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
    }
    return settings;
  }

  private static KStream<String, Reading> readings(
      StreamsBuilder builder, String one, String other, AtomicLong seen, long messages) {
    ObjectReader reader = new ObjectMapper().readerFor(Reading.class);
    Deserializer<Reading> parse =
        (topic, bytes) -> {
          try {
            return reader.readValue(bytes);
          } catch (IOException err) {
            throw new UncheckedIOException(err);
          }
        };
    Consumed<String, Reading> consumed =
        Consumed.with(Serdes.String(), Serdes.serdeFrom((topic, value) -> null, parse));
    return builder
        .stream(one, consumed)
        .merge(builder.stream(other, consumed))
        .peek(
            (key, value) -> {
              long number = seen.incrementAndGet();
              if (number == 1) {
                say("first");
              }
              if (number == messages) {
                FINISHED.countDown();
              }
            });
  }

  private static long hundredths(double value) {
    return Math.round(value * 100);
  }

  private static long mean(long total, long count) {
    return count == 0 ? -1 : (2 * total + count) / (2 * count);
  }

  private static void say(String event) {
    System.out.println(event + " " + System.currentTimeMillis() / 1000.0);
    System.out.flush();
  }

  /** Rows of one family; a number below zero stands for a metric without a sample. */
  private static final class RowFile implements AutoCloseable {
    private final BufferedWriter file;
    private final boolean isLive;

    RowFile(Path path, boolean isLive) throws IOException {
      this.file = Files.newBufferedWriter(path);
      this.isLive = isLive;
    }

    synchronized void write(
        Windowed<String> window,
        long first,
        long second,
        long[] limits,
        String firstLabel,
        String secondLabel,
        String bothLabel) {
      boolean isFirst = first >= limits[0];
      boolean isSecond = second >= limits[1];
      String alert =
          isFirst && isSecond ? bothLabel : isFirst ? firstLabel : isSecond ? secondLabel : "";
      StringBuilder line = new StringBuilder(96).append(window.key());
      line.append(',').append(window.window().start()).append(',').append(window.window().end());
      decimal(line.append(','), first);
      decimal(line.append(','), second);
      line.append(',').append(alert).append('\n');
      try {
        file.append(line);
        if (isLive) {
          file.flush();
        }
      } catch (IOException err) {
        throw new UncheckedIOException(err);
      }
    }

    private static void decimal(StringBuilder line, long number) {
      if (number >= 0) {
        line.append(number / 100).append(number % 100 < 10 ? ".0" : ".").append(number % 100);
      }
    }

    @Override
    public synchronized void close() throws IOException {
      file.close();
    }
  }
}
