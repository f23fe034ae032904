// Another vendor's end of the DDS transport: reads messages with Fast DDS and sends each back.
// Usage: main DOMAIN; it ends with its standard input.

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/DataReaderListener.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/rtps/transport/UDPv4TransportDescriptor.h>
#include <fastrtps/utils/IPLocator.h>

#include "RosPubSubTypes.h"

using namespace eprosima::fastdds::dds;
using eprosima::fastrtps::rtps::IPLocator;
using eprosima::fastrtps::rtps::Locator_t;

constexpr int kKept = 64;

// One topic there and one back.
template <class Message, class Support>
class Echo : public DataReaderListener {
 public:
  Echo(DomainParticipant* participant, const std::string& name) {
    TypeSupport type(new Support());
    type.register_type(participant);
    Topic* there =
        participant->create_topic("rt/there/" + name, type.get_type_name(), TOPIC_QOS_DEFAULT);
    Topic* back =
        participant->create_topic("rt/back/" + name, type.get_type_name(), TOPIC_QOS_DEFAULT);
    DataWriterQos write = DATAWRITER_QOS_DEFAULT;
    write.reliability().kind = RELIABLE_RELIABILITY_QOS;
    write.history().depth = kKept;
    write.durability().kind = VOLATILE_DURABILITY_QOS;
    writer_ = participant->create_publisher(PUBLISHER_QOS_DEFAULT)->create_datawriter(back, write);
    DataReaderQos read = DATAREADER_QOS_DEFAULT;
    read.reliability().kind = RELIABLE_RELIABILITY_QOS;
    read.history().depth = kKept;
    participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT)->create_datareader(there, read, this);
  }

  void on_data_available(DataReader* reader) override {
    Message message;
    SampleInfo info;
    while (reader->take_next_sample(&message, &info) == ReturnCode_t::RETCODE_OK) {
      if (info.valid_data) writer_->write(&message);
    }
  }

 private:
  DataWriter* writer_;
};

// Only this machine: no multicast, no shared memory, which other vendors do not share.
DomainParticipantQos Loopback() {
  DomainParticipantQos qos = PARTICIPANT_QOS_DEFAULT;
  auto udp = std::make_shared<eprosima::fastdds::rtps::UDPv4TransportDescriptor>();
  udp->interfaceWhiteList.push_back("127.0.0.1");
  qos.transport().use_builtin_transports = false;
  qos.transport().user_transports.push_back(udp);
  Locator_t self;
  IPLocator::setIPv4(self, 127, 0, 0, 1);
  qos.wire_protocol().builtin.metatrafficUnicastLocatorList.push_back(self);
  qos.wire_protocol().builtin.initialPeersList.push_back(self);
  return qos;
}

int main(int argc, char** argv) {
  const int domain = argc > 1 ? std::atoi(argv[1]) : 0;
  DomainParticipantFactory* factory = DomainParticipantFactory::get_instance();
  DomainParticipant* participant = factory->create_participant(domain, Loopback());
  if (participant == nullptr) return 1;
  using namespace sensor_msgs::msg::dds_;
  using namespace std_msgs::msg::dds_;
  using namespace trajectory_msgs::msg::dds_;
  Echo<JointState_, JointState_PubSubType> states(participant, "jointstate");
  Echo<Float64MultiArray_, Float64MultiArray_PubSubType> floats(participant, "float64multiarray");
  Echo<JointTrajectory_, JointTrajectory_PubSubType> paths(participant, "jointtrajectory");
  std::cout << "ready" << std::endl;
  std::cin.get();
  participant->delete_contained_entities();
  factory->delete_participant(participant);
  return 0;
}
