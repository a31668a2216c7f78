import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * Flink: a family's two topics in one source, sliding windows by event time, one incremental
 * aggregate, and one file.
 *
 * <p>The source keeps a watermark for each partition, so topics may be drained unevenly. Values are
 * whole hundredths, so that means are exact.
 */
public final class FlinkWindows {
  private static final Duration SIZE = Duration.ofSeconds(30);
  private static final Duration SLIDE = Duration.ofSeconds(10);
  private static final AtomicBoolean IS_FIRST = new AtomicBoolean(true);

  /** One message; fields that it lacks stay null. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  public static final class Message {
    public String server_id;
    public Double cpu_pct;
    public Double mem_pct;
    public Double net_in;
    public Double disk_io;
  }

  /** One number of one server: its family's first or second, in hundredths. */
  public static final class Reading {
    public String server;
    public boolean isFirst;
    public long value;
  }

  /** Sum or maximum, and count, of a family's two numbers. */
  public static final class State {
    public long first;
    public long firstCount;
    public long second;
    public long secondCount;
  }

  /** Messages of two topics, as readings. */
  private static final class Parse implements KafkaRecordDeserializationSchema<Reading> {
    private final boolean isCpuMem;
    private transient ObjectReader reader;

    Parse(boolean isCpuMem) {
      this.isCpuMem = isCpuMem;
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> from, Collector<Reading> out)
        throws IOException {
      if (reader == null) {
        reader = new ObjectMapper().readerFor(Message.class);
        if (IS_FIRST.compareAndSet(true, false)) {
          say("first");
        }
      }
      Message message = reader.readValue(from.value());
      Double first = isCpuMem ? message.cpu_pct : message.net_in;
      Double second = isCpuMem ? message.mem_pct : message.disk_io;
      Reading reading = new Reading();
      reading.server = message.server_id;
      reading.isFirst = first != null;
      reading.value = Math.round((first != null ? first : second) * 100);
      out.collect(reading);
    }

    @Override
    public TypeInformation<Reading> getProducedType() {
      return TypeInformation.of(Reading.class);
    }
  }

  /** Adds readings up, or keeps the highest. */
  private static final class Fold implements AggregateFunction<Reading, State, State> {
    private final boolean isSum;

    Fold(boolean isSum) {
      this.isSum = isSum;
    }

    @Override
    public State createAccumulator() {
      return new State();
    }

    @Override
    public State add(Reading reading, State state) {
      if (reading.isFirst) {
        state.first = isSum ? state.first + reading.value : Math.max(state.first, reading.value);
        state.firstCount++;
      } else {
        state.second = isSum ? state.second + reading.value : Math.max(state.second, reading.value);
        state.secondCount++;
      }
      return state;
    }

    @Override
    public State getResult(State state) {
      return state;
    }

    @Override
    public State merge(State one, State other) {
      one.first = isSum ? one.first + other.first : Math.max(one.first, other.first);
      one.second = isSum ? one.second + other.second : Math.max(one.second, other.second);
      one.firstCount += other.firstCount;
      one.secondCount += other.secondCount;
      return one;
    }
  }

  /** Judges a closed window and prints its row; a number below zero has no sample. */
  private static final class Print
      extends ProcessWindowFunction<State, String, String, TimeWindow> {
    private final boolean isMean;
    private final long[] limits;
    private final List<String> labels;

    Print(boolean isMean, long[] limits, List<String> labels) {
      this.isMean = isMean;
      this.limits = limits;
      this.labels = labels;
    }

    @Override
    public void process(String server, Context context, Iterable<State> one, Collector<String> out) {
      State state = one.iterator().next();
      long first = number(state.first, state.firstCount);
      long second = number(state.second, state.secondCount);
      int met = (first >= limits[0] ? 1 : 0) + (second >= limits[1] ? 2 : 0);
      StringBuilder line = new StringBuilder(96).append(server);
      line.append(',').append(context.window().getStart());
      line.append(',').append(context.window().getEnd());
      decimal(line.append(','), first);
      decimal(line.append(','), second);
      out.collect(line.append(',').append(labels.get(met)).append('\n').toString());
    }

    private long number(long value, long count) {
      if (count == 0) {
        return -1;
      }
      return isMean ? (2 * value + count) / (2 * count) : value;
    }

    private static void decimal(StringBuilder line, long number) {
      if (number >= 0) {
        line.append(number / 100).append(number % 100 < 10 ? ".0" : ".").append(number % 100);
      }
    }
  }

  /** Appends lines to one file; live, each reaches the disk's cache at once. */
  private static final class LineSink implements Sink<String> {
    private final String path;
    private final boolean isLive;

    LineSink(Path path, boolean isLive) {
      this.path = path.toString();
      this.isLive = isLive;
    }

    @Override
    public SinkWriter<String> createWriter(WriterInitContext context) throws IOException {
      BufferedWriter file = Files.newBufferedWriter(Path.of(path));
      return new SinkWriter<>() {
        @Override
        public void write(String line, Context at) throws IOException {
          file.append(line);
          if (isLive) {
            file.flush();
          }
        }

        @Override
        public void flush(boolean endOfInput) throws IOException {
          file.flush();
        }

        @Override
        public void close() throws IOException {
          file.close();
        }
      };
    }
  }

  public static void main(String[] args) throws Exception {
    Map<String, String> given = new HashMap<>();
    for (int i = 0; i < args.length; i += 2) {
      given.put(args[i], args[i + 1]);
    }
    String[] topics = given.get("--topics").split(",");
    StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
    // A topic has one partition, and more readers than partitions would hold the watermark back.
    env.setParallelism(1);
    env.getConfig().enableObjectReuse();
    env.enableCheckpointing(10_000);
    family(
        env,
        given,
        "cpu_mem",
        List.of(topics[0], topics[1]),
        new long[] {80_00, 89_00},
        List.of(
            "",
            "Performance spike suspected",
            "Memory saturation suspected",
            "Intense resource spike"));
    family(
        env,
        given,
        "net_disk",
        List.of(topics[2], topics[3]),
        new long[] {6100_00, 1800_00},
        List.of("", "Potential DDoS detection", "Disk thrash warning", "Sustained load alert"));
    env.execute("fleet");
    say("done");
    // The cluster inside this process would wait for its idle threads.
    System.exit(0);
  }

  private static void family(
      StreamExecutionEnvironment env,
      Map<String, String> given,
      String name,
      List<String> topics,
      long[] limits,
      List<String> labels) {
    boolean isLive = given.get("--messages").equals("0");
    boolean isCpuMem = name.equals("cpu_mem");
    KafkaSourceBuilder<Reading> source =
        KafkaSource.<Reading>builder()
            .setBootstrapServers(given.get("--bootstrap"))
            .setGroupId("flink-" + name + System.nanoTime())
            .setTopics(topics)
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new Parse(isCpuMem));
    if (!isLive) {
      source.setBounded(OffsetsInitializer.latest());
    }
    Duration lateness = Duration.ofMillis(Long.parseLong(given.get("--lateness-ms")));
    env.fromSource(
            source.build(), WatermarkStrategy.forBoundedOutOfOrderness(lateness), name + "-source")
        .keyBy(reading -> reading.server)
        .window(SlidingEventTimeWindows.of(SIZE, SLIDE))
        .aggregate(new Fold(isCpuMem), new Print(isCpuMem, limits, labels))
        .sinkTo(new LineSink(Path.of(given.get("--out"), name + ".csv"), isLive));
  }

  private static void say(String event) {
    System.out.println(event + " " + System.currentTimeMillis() / 1000.0);
    System.out.flush();
  }
}
